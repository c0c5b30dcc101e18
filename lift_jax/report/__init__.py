"""HTML reports, each a single file with its plots as inline SVG."""

import logging

# Its warnings about its font cache do not matter to users of a job.
logging.getLogger('matplotlib').setLevel(logging.ERROR)
