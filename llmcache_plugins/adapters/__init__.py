"""The faces for frameworks: each translates its framework's types and signals, and nothing else."""
