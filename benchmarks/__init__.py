"""Measures the product: the demo, and figures side by side."""
