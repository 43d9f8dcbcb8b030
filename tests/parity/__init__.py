"""The zoo against independent implementations, by way of committed goldens.

`make_<architecture>.py` runs another project's code with tiny dimensions and random weights, and
writes one golden per case; its docstring names the environment that it needs. `test_parity.py`
needs only the goldens and this project.
"""
