"""Runs stages of the study in the working folder in one process: `all_stages.py corpus subject …`.

One process, as an emulated processor takes a minute to import the libraries, and no workers, as
those would run on the real one.
"""

import os
import runpy
import sys

os.environ["SAE_REPRO_JOBS"] = "1"
for name in sys.argv[1:]:
    os.environ["DVC_STAGE"] = name
    runpy.run_path(f"stages/{name}.py", run_name="__main__")
