#!/usr/bin/env bash
# A float in the headers of an AMQP message.
#
# Guess:  AMQP 0-9-1 has a 64-bit float ('d'), and a Python float is one; so a header of 0.1 arrives as 0.1.
# Truth:  pamqp encodes every Python float as a 32-bit one ('f'). 0.1 comes out as 0.10000000149011612, and a float that
#         does not fit into 32 bits, such as 1e39, raises OverflowError, which is neither a TypeError nor a ValueError.
# Seen with: pamqp 4.0.1, Python 3.11.
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pamqp==4.0.1
"$folder/venv/bin/python" - <<'PY' || { echo "CHANGED: floats are encoded in another way now"; exit 1; }
import sys
from pamqp import decode, encode

_, table = decode.field_table(encode.field_table({"ratio": 0.1}))
print(f"0.1 comes out as {table['ratio']!r}")
try:
    encode.field_table({"ratio": 1e39})
    beyond = "it was encoded"
except Exception as error:
    beyond = type(error).__name__
print(f"1e39: {beyond}")
sys.exit(0 if table["ratio"] != 0.1 and abs(table["ratio"] - 0.1) < 1e-8 and beyond == "OverflowError" else 1)
PY
echo "As found: floats have 32 bits."
