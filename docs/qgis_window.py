"""PLUGIN MODEL.onnx MAP.tif COLORS OUT.png: photograph a window of QGIS in which Deepness has segmented a map.

It runs in the Python of QGIS, with ONNX Runtime and OpenCV, for docs/tool_figures.py. PLUGIN is a checkout of Deepness,
whose panel loads the model, its default parameters, and runs it on the entire map. COLORS has the colours of the
classes, as `#rrggbb` with commas between them; QGIS draws colours by chance.
"""

import os
import sys
from pathlib import Path
from unittest.mock import MagicMock

from qgis.core import QgsApplication, QgsLayerTreeModel, QgsProject, QgsRasterLayer
from qgis.gui import QgsLayerTreeMapCanvasBridge, QgsLayerTreeView, QgsMapCanvas
from qgis.PyQt.QtCore import Qt, QTimer
from qgis.PyQt.QtGui import QColor
from qgis.PyQt.QtWidgets import QDockWidget, QMainWindow

SIZE = 1280, 600
WIDTHS = 160, 440  # of the list of layers and of the panel
OPACITY = 120  # of 255


def window_of(map_layer, panel):
    """Return a window with QGIS's list of layers, its map, and a panel."""
    window, canvas, layers = QMainWindow(), QgsMapCanvas(), QDockWidget("Layers")
    root = QgsProject.instance().layerTreeRoot()
    window.tree, window.tree_model = QgsLayerTreeView(), QgsLayerTreeModel(root)
    window.bridge = QgsLayerTreeMapCanvasBridge(root, canvas)
    window.tree.setModel(window.tree_model)
    layers.setWidget(window.tree)
    canvas.setCanvasColor(QColor("white"))
    window.setCentralWidget(canvas)
    window.addDockWidget(Qt.LeftDockWidgetArea, layers)
    window.addDockWidget(Qt.RightDockWidgetArea, panel)
    window.resize(*SIZE)
    window.resizeDocks([layers, panel], WIDTHS, Qt.Horizontal)
    window.show()
    canvas.setExtent(map_layer.extent())
    return window, canvas


def segment(panel, model, map_layer):
    """Load the model in the plug-in's panel, and run it as the button does."""
    from deepness.processing.map_processor.map_processor_segmentation import MapProcessorSegmentation

    def run(parameters):
        processor = MapProcessorSegmentation(
            rlayer=map_layer, vlayer_mask=None, map_canvas=MagicMock(), params=parameters
        )
        processor._run().gui_delegate()

    panel.run_model_inference_signal.connect(run)
    panel.lineEdit_modelPath.setText(model)
    panel.pushButton_reloadModel.click()
    panel.pushButton_loadDefaultModelParameters.click()
    panel.comboBox_processedAreaSelection.setCurrentText("Entire layer")
    panel.pushButton_runInference.click()
    panel.lineEdit_modelPath.setText(Path(model).name)


def color_layers(colors, tree_model):
    """Give the layers of classes the colours of the model."""
    classes = QgsProject.instance().layerTreeRoot().findGroup("model_output").findLayers()
    for node, name in zip(classes, colors, strict=True):
        color = QColor(name)
        color.setAlpha(OPACITY)
        node.layer().renderer().symbol().setColor(color)
        tree_model.refreshLayerLegend(node)


def main():
    plugin, model, map_file, colors, out = sys.argv[1:]
    sys.path.insert(0, f"{plugin}/src")
    application = QgsApplication([], True)
    application.initQgis()
    from deepness.deepness_dockwidget import DeepnessDockWidget

    map_layer = QgsRasterLayer(map_file, "map")
    QgsProject.instance().setCrs(map_layer.crs())
    QgsProject.instance().addMapLayer(map_layer)
    panel = DeepnessDockWidget(MagicMock())
    window, canvas = window_of(map_layer, panel)
    segment(panel, model, map_layer)
    color_layers(colors.split(","), window.tree_model)

    def photograph():
        window.tree.setExpanded(window.tree.model().index(0, 0), True)  # the group of the classes
        canvas.waitWhileRendering()
        window.grab().save(out)
        os._exit(0)  # QGIS's own end crashes outside of its program

    QTimer.singleShot(3000, photograph)
    application.exec()


if __name__ == "__main__":
    main()
