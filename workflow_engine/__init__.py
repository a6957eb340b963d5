"""Decides what happens next; its code alone writes cases."""
