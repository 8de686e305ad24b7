"""Gymnasium ids to vector environments and arrays. Only this room imports gymnasium."""
