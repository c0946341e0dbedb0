"""Extras: one module for each integration, imported by its own name (`tinygen.ext.NAME`) and by nothing here."""
