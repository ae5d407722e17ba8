"""Between engine and screen: settings, links, the queue of runs, what is measured, grids, exports. No Streamlit.

settings  scene  link  keys          what a visitor chose, and how it is written
library  shelf  uploads  memo        networks and images that all visitors of a server share
case  translate                      settings resolved once into the engine's specs
measure  results                     hits counted in one place, image by image
runner                               one queue, fair by visitor
compare  energy                      what stands beside the visitor's run; what operations might cost
sweep  statistics  report            grids of settings, whether differences are real, and how they are told
script  tables                       results to take away
"""
