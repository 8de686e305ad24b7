"""Gymnasium ids to vector environments, with observations as arrays. The only room that imports gymnasium."""
