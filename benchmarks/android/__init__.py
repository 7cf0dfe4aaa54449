"""`bloodedge benchmark --adb`: TFLite's own benchmark_model on an Android device over adb."""
