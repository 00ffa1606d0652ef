"""``python -m pipeline.reproduction``."""

import os

if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # see pipeline/__main__.py
    from pipeline.reproduction.command import main

    main()
