//! The services as separate processes on one Redis and one database: what the tests of the write path start.

use std::time::Duration;

use anyhow::Result;
use pricing_e2e::{HttpClient, ServiceProcess, free_port};

/// A program of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    Api,
    Worker,
    Listener,
}

impl Service {
    fn program(self) -> &'static str {
        match self {
            Self::Api => "pricing-api",
            Self::Worker => "pricing-worker",
            Self::Listener => "pricing-listener",
        }
    }

    fn listen_variable(self) -> &'static str {
        match self {
            Self::Api => "PRICING_API_LISTEN",
            Self::Worker => "PRICING_WORKER_LISTEN",
            Self::Listener => "PRICING_LISTENER_LISTEN",
        }
    }
}

/// The addresses and further settings of the services.
#[derive(Debug, Clone)]
pub(crate) struct Fleet {
    environment: Vec<(String, String)>,
}

/// A service that can be killed and started again on the same port.
pub(crate) struct Member {
    pub(crate) client: HttpClient,
    pub(crate) process: ServiceProcess,
    service: Service,
    port: u16,
    fleet: Fleet,
}

impl Fleet {
    pub(crate) fn new(redis_url: &str, database_url: &str) -> Self {
        let environment = vec![
            ("PRICING_REDIS_URL".to_owned(), redis_url.to_owned()),
            ("PRICING_DATABASE_URL".to_owned(), database_url.to_owned()),
        ];
        Self { environment }
    }

    /// The same with one more variable.
    pub(crate) fn with(mut self, variable: &str, value: &str) -> Self {
        self.environment.push((variable.to_owned(), value.to_owned()));
        self
    }

    /// Starts a service and waits until it is ready.
    pub(crate) async fn start(&self, service: Service) -> Result<Member> {
        let port = free_port()?;
        let process = self.launch(service, port)?;
        let client = HttpClient::new(base_url(port))?;
        let mut member = Member { client, process, service, port, fleet: self.clone() };
        member.process.wait_until_ready(&base_url(port)).await?;
        Ok(member)
    }

    fn launch(&self, service: Service, port: u16) -> Result<ServiceProcess> {
        let listen = format!("127.0.0.1:{port}");
        let mut environment: Vec<(&str, &str)> =
            self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        environment.push((service.listen_variable(), &listen));
        ServiceProcess::start(service.program(), &environment, &[])
    }
}

impl Member {
    /// Where it listens, as Prometheus writes it.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Starts it again after a kill; does not wait until it is ready.
    pub(crate) fn start_again(&mut self) -> Result<()> {
        self.process = self.fleet.launch(self.service, self.port)?;
        Ok(())
    }

    /// Waits until it is ready.
    pub(crate) async fn wait_until_ready(&mut self) -> Result<()> {
        self.process.wait_until_ready(&base_url(self.port)).await
    }

    /// SIGTERM, and waits for its end.
    pub(crate) async fn terminate(&mut self) -> Result<bool> {
        Ok(self.process.terminate(Duration::from_secs(15)).await?.success())
    }

    /// The sum of a metric's series whose labels contain this text.
    pub(crate) async fn metric(&self, name: &str, label: &str) -> Result<u64> {
        let text = self.client.get("/metrics").await?.text;
        let series = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
        Ok(series.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum())
    }
}

fn base_url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}
