"""The word tables of the guards: English, written by hand, no code beyond what spreads them out."""
