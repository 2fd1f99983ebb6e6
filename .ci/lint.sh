# shellcheck shell=bash
# What is checked without running anything: `./dev lint`, which sources this.

task_lint() {
    need cargo rustfmt clippy shellcheck python3 hadolint kubernetes-validate cargo-deny cargo-machete

    say "Checking the formatting, the scripts and the sample data"
    run cargo fmt --all --check
    run shellcheck --external-sources dev .ci/run .ci/*.sh deploy/compose-backup deploy/redis-restore
    run python3 -c 'import ast, sys; [ast.parse(open(f, "rb").read(), f) for f in sys.argv[1:]]' data/*.py locust/*.py
    run python3 data/sample.py --check
    lint_deployment
    say "Running clippy: about 3 minutes the first time"
    run cargo clippy --locked --workspace --all-targets -- -D warnings
    # By itself, without what the others switch on in its dependencies.
    run cargo check --locked -p pricing-domain
    RUSTDOCFLAGS='-D warnings' run cargo doc --locked --no-deps -p pricing-domain
    lint_dependencies
}

lint_deployment() {
    say "Checking the Dockerfile and the Kubernetes files; KEDA's has a schema of its own and is not checked"
    run "$TOOLS/hadolint/bin/hadolint" Dockerfile
    local file files=()
    for file in deploy/kubernetes/*.yaml; do
        [ "${file##*/}" = kustomization.yaml ] || files+=("$file")
    done
    run "$TOOLS/kubernetes-validate/bin/kubernetes-validate" --strict --quiet "${files[@]}"
}

lint_dependencies() {
    say "Checking that every dependency is used, and the dependencies' licences, versions and sources"
    run cargo machete --skip-target-dir
    run cargo deny check licenses bans sources
    if run cargo deny fetch db; then
        run cargo deny check advisories
    else
        say "SKIPPED: security advisories. Their database could not be fetched; see above for the reason"
    fi
}
