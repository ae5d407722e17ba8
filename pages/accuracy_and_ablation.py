"""Accuracy and ablation: how many steps are enough, and what does each setting do?"""

from explorer.ui import ablation_parts, explorer_parts, exports, frame, tour

frame.question("How many steps are enough, and what does each setting do to the answer?")
view = frame.view()
runs = explorer_parts.runs(view)
plan = ablation_parts.choose(view)
frame.live(ablation_parts.ask(runs, plan), lambda: ablation_parts.draw(view, runs, plan))
exports.buttons()
tour.lesson("accuracy_and_ablation")
