"""The paper's tables (`zoo/tables.py`), cell by cell: from fresh weights to a judged file, and on after any stop."""
