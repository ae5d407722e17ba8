"""Between engine and screen: settings, links, the queue of runs, what is measured, sweeps, exports. No Streamlit.

settings  scene  link  keys      what a visitor chose, and how it is written
library  shelf  uploads  memo    networks and images that all visitors of a server share
case  recipes                    settings resolved once into the engine's specs
measure  results                 hits counted in one place, image by image
runner                           one queue, fair by visitor
script  tables                   results to take away
"""
