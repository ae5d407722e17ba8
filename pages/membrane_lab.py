"""Membrane lab: what does one neuron do, step by step, and what does its start change?"""

from explorer.ui import frame, lab_parts, tour

frame.question("What does one neuron do, step by step, and what does its start change?")
view = frame.view()
lab_parts.images(view)
lab_parts.rate_map(view)
lab_parts.three_starts(view)
lab_parts.play(view)
lab_parts.raster(view)
lab_parts.first_spikes(view)
tour.lesson("membrane_lab")
