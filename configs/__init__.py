"""Run configurations; `base.py` documents every field."""
