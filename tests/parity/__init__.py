"""The zoo against independent implementations, through committed goldens.

`make_<architecture>.py` runs somebody else's code with tiny dimensions and random weights and
writes one golden for each case; its docstring names the environment it needs. `test_parity.py`
needs the goldens and this project alone.
"""
