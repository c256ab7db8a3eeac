"""What a threshold costs and wins, counted on labelled pairs."""

from llmcache_plugins.semantic.calibration.table import (
    ALWAYS,
    NEVER,
    Calibration,
    Rate,
    Row,
    calibrated,
    shipped,
)

__all__ = ["ALWAYS", "NEVER", "Calibration", "Rate", "Row", "calibrated", "shipped"]
