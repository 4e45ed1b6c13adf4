#!/usr/bin/env bash
# After an install: a pool without servers is accepted, and its StatefulSet stands. Uses the current kubectl context.
set -euo pipefail
kubectl apply --server-side -f - <<'POOL'
apiVersion: ergon.dev/v1alpha1
kind: AcceleratorPool
metadata: {name: smoke}
spec:
  accelerator: {class: cpu}
  memory: 1Gi
  servers: {min: 0, max: 0}
POOL
kubectl wait --for=condition=Accepted --timeout=60s acceleratorpool/smoke
kubectl -n ergon-system get statefulset ergon-smoke
echo "the pool smoke is accepted"
