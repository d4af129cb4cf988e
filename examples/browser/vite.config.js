import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

const path = (relative) => fileURLToPath(new URL(relative, import.meta.url));

export default defineConfig({
  root: path("../../src/crispseg/visualization/templates/browser"), // the page of `crispseg demo --static`
  publicDir: path("public"), // model.onnx
  base: "./",
  appType: "mpa", // a missing model.onnx is an error, not the page
  resolve: {
    alias: {
      "./onnxruntime-web/ort.webgpu.min.mjs": path("node_modules/onnxruntime-web/dist/ort.webgpu.bundle.min.mjs"),
    },
  },
  cacheDir: path("node_modules/.vite"),
  build: { outDir: path("dist"), emptyOutDir: true },
  server: { fs: { allow: [path("../..")] } },
  worker: { format: "es" },
});
