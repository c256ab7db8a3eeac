"""The semantic layer, measured on labelled questions of a folder that is not part of this repository."""
