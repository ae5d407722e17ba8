"""Pure functions from NumPy arrays to Plotly figures; no torch, no Streamlit."""
