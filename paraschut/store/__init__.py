"""The index: the only code that speaks SQL."""
