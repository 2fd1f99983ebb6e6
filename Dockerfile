# One image with all four programs: pricing-api, pricing-worker, pricing-listener and the command line, pricing.
#
# Stages: `build` compiles (its dependencies in a layer that only changes with the lock file), `files` collects the
# programs and the few libraries they load, and the image is those files and nothing else: no shell, no package manager.

FROM rust:1.95-bookworm AS build
WORKDIR /src

# The dependencies: every manifest, with empty sources in place of ours.
COPY .cargo .cargo
COPY Cargo.toml Cargo.lock ./
COPY crates/api/Cargo.toml crates/api/
COPY crates/cli/Cargo.toml crates/cli/
COPY crates/core/Cargo.toml crates/core/
COPY crates/domain/Cargo.toml crates/domain/
COPY crates/e2e/Cargo.toml crates/e2e/
COPY crates/listener/Cargo.toml crates/listener/
COPY crates/worker/Cargo.toml crates/worker/
COPY crates/wire/Cargo.toml crates/wire/
COPY crates/xtask/Cargo.toml crates/xtask/
RUN for crate in crates/*; do \
        mkdir -p "$crate/src" && touch "$crate/src/lib.rs" && echo 'fn main() {}' > "$crate/src/main.rs"; \
    done \
    && cargo build --release --locked -p pricing-api -p pricing-worker -p pricing-listener -p pricing-cli \
    && rm -r crates/*/src

# Our own sources. Their times say that they are older than what was built of the empty ones, so they are touched.
COPY crates crates
COPY data data
RUN find crates -name '*.rs' -exec touch {} + \
    && cargo build --release --locked -p pricing-api -p pricing-worker -p pricing-listener -p pricing-cli

FROM build AS files
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /files
RUN mkdir -p usr/local/bin usr/share/pricing etc tmp \
    && chmod 1777 tmp \
    && cp /src/target/release/pricing /src/target/release/pricing-api /src/target/release/pricing-worker \
        /src/target/release/pricing-listener usr/local/bin/ \
    && ldd usr/local/bin/* | grep -o '/lib[^ ]*' | sort -u | xargs cp --parents --dereference --target-directory . \
    && cp --parents --dereference /etc/ssl/certs/ca-certificates.crt . \
    && cp -r /src/data/sample-products.csv /src/crates/domain/policies usr/share/pricing/ \
    && echo 'pricing:x:10001:10001:pricing:/tmp:/sbin/nologin' > etc/passwd \
    && echo 'pricing:x:10001:' > etc/group \
    && echo 'hosts: files dns' > etc/nsswitch.conf

FROM scratch
ARG VERSION=0.2.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="pricing engine" \
      org.opencontainers.image.description="What a product costs this shopper now, with the reason; and prices that follow the market" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=files /files /
ENV PATH=/usr/local/bin \
    PRICING_API_LISTEN=0.0.0.0:8000 \
    PRICING_WORKER_LISTEN=0.0.0.0:8001 \
    PRICING_LISTENER_LISTEN=0.0.0.0:8002 \
    PRICING_LOG_FORMAT=json
USER 10001:10001
EXPOSE 8000 8001 8002
# To run another program, override this as well, as docker-compose.yml does.
HEALTHCHECK --interval=5s --timeout=4s --retries=3 CMD ["pricing-api", "healthcheck"]
CMD ["pricing-api"]
