"""Signed findings in; DiagnosticReport, PDF and the rest of the bundle out."""
