"""Measurements that back the figures in the documentation; each module is a command."""
