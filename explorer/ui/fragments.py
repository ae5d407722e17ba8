"""Parts of a page that are drawn anew without the rest, asked for by a part that draws nothing.

`st.rerun(KEY)` does this from a widget's callback only. A part that merely looks for news would have to draw itself to
draw anything: forty visitors cost half of the server's time that way.
"""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st


def rerun_after(keys: Sequence[str]) -> None:
    """Have the fragments of these keys drawn anew once this run has ended; the whole page, where that cannot be had."""
    try:
        from streamlit.runtime.scriptrunner import RerunData, get_script_run_ctx

        context = get_script_run_ctx()
        assert context is not None and context.script_requests is not None
        request = RerunData(
            query_string=context.query_string,
            page_script_hash=context.page_script_hash,
            fragment_id_queue=context.fragment_storage.resolve_target(list(keys)),
            is_fragment_scoped_rerun=True,
            cached_message_hashes=context.cached_message_hashes,
            context_info=context.context_info,
        )
    except (AssertionError, AttributeError, ImportError, TypeError):  # another version of Streamlit
        st.rerun()
    context.script_requests.request_rerun(request)
