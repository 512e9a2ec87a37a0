"""Trains the demo model from nothing: scenes are drawn here, models are the real classes at a small size.

`python -m training --help` lists the stages. Nothing at run time imports this package.
"""
