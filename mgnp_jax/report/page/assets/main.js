// Draws every part once; from then on each draws itself again when what it shows changes.

state.firstShade = shadeNow().name;
Object.assign(state, stateOfAddress(location.hash));
put("tools", searchField(), themeButton());
drawControls();
drawSize();
drawGrid();
drawPanel();
drawPrompts();
drawGraph();
drawTable();
drawLens();
drawCompare();
drawNotes();
drawFiles();
addEventListener("hashchange", () => {
  change({ shade: null, query: null, ...stateOfAddress(location.hash) });
  refreshNotes();
});
document.documentElement.dataset.ready = "true";
