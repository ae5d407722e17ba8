"""Explorer: how do thresholds, initial potentials and time decide what the spiking network gets right?"""

from explorer.ui import explorer_parts as parts
from explorer.ui import exports, frame, tour

frame.question("How do thresholds, initial potentials and time decide what the spiking network gets right?")
view = frame.view()
parts.image_and_scores(view)
parts.neuron(view)
runs = parts.runs(view)
frame.live(runs.ask(), lambda: parts.curves(view, runs))
parts.layers(view, runs)
exports.buttons()
tour.lesson("explorer")
