"""``python -m pipeline.studies.engine``."""

import os

if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # see pipeline/__main__.py
    from pipeline.studies.engine.command import main

    main()
