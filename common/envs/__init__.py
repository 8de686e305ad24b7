"""Gymnasium ids to vector environments and arrays."""
