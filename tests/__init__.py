"""Tests of Countersign: unit, integration, acceptance, architecture."""
