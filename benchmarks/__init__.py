"""What things cost, side by side with their alternatives in one run. `python -m benchmarks`."""
