"""Gymnasium's spaces and values as our specs and arrays, and back."""
