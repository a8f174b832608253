"""Measures of what models make and of how they make it, as pure functions that know no torch."""
