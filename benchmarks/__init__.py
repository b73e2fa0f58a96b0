"""Measurements of the whole product, on servers of their own."""
