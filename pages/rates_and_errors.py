"""Rates and errors: where does the conversion error come from, by layer, channel and cause?"""

from explorer.ui import error_parts, frame, tour

frame.question("Where does the conversion error come from: which layer, which channel, which cause?")
view = frame.view()
error_parts.equalisers(view)
frame.live(error_parts.ask(view), lambda: error_parts.draw(view))
tour.lesson("rates_and_errors")
