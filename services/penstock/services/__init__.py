"""Penstock: services."""
