"""`python -m export.inspect BUNDLE`.

This folder has no __init__.py, and must have none: `python export/to_onnx.py` searches the folder export/ first, where
a module or package called `inspect` would hide the standard library's. A folder without that file does not.
"""

from export.bundle_report import main

if __name__ == "__main__":
    main()
