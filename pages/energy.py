"""Energy and sparsity: how many spikes and additions does the answer cost, against the ANN's multiplications?"""

from explorer.ui import energy_parts, frame, tour

frame.question("How many spikes and additions does the answer cost, against the ANN's multiplications?")
view = frame.view()
frame.live(energy_parts.ask(view), lambda: energy_parts.draw(view))
tour.lesson("energy")
