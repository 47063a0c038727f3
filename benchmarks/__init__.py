"""Measurements that documents quote; each prints the machine and the date with its figures."""
