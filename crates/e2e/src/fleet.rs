//! The services as separate processes on one Redis and one database.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use crate::http_client::HttpClient;
use crate::ports::free_port;
use crate::process::ServiceProcess;

/// A program of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// `pricing-api`.
    Api,
    /// `pricing-worker`.
    Worker,
    /// `pricing-listener`.
    Listener,
}

impl Service {
    /// The name of its program.
    pub fn program(self) -> &'static str {
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
pub struct Fleet {
    environment: Vec<(String, String)>,
    /// Where the programs are; absent: in the target directory of the test.
    programs: Option<PathBuf>,
}

/// A service that can be killed and started again on the same port.
#[derive(Debug)]
pub struct Member {
    /// A client of its port.
    pub client: HttpClient,
    /// The running process, or the one that has ended.
    pub process: ServiceProcess,
    service: Service,
    port: u16,
    fleet: Fleet,
    /// What its earlier processes have said.
    said_before: String,
}

impl Fleet {
    /// The services of the test's own build on this Redis and this database.
    pub fn new(redis_url: &str, database_url: &str) -> Self {
        let environment = vec![
            ("PRICING_REDIS_URL".to_owned(), redis_url.to_owned()),
            ("PRICING_DATABASE_URL".to_owned(), database_url.to_owned()),
        ];
        Self { environment, programs: None }
    }

    /// The same with the programs in this directory, of another build.
    pub fn of_build(mut self, programs: &Path) -> Self {
        self.programs = Some(programs.to_owned());
        self
    }

    /// The same with one more variable.
    pub fn with(mut self, variable: &str, value: &str) -> Self {
        self.environment.push((variable.to_owned(), value.to_owned()));
        self
    }

    /// Starts a service and waits until it is ready.
    pub async fn start(&self, service: Service) -> Result<Member> {
        let port = free_port()?;
        let process = self.launch(service, port)?;
        let client = HttpClient::new(base_url(port))?;
        let fleet = self.clone();
        let mut member = Member { client, process, service, port, fleet, said_before: String::new() };
        member.process.wait_until_ready(&base_url(port)).await?;
        Ok(member)
    }

    fn launch(&self, service: Service, port: u16) -> Result<ServiceProcess> {
        let listen = format!("127.0.0.1:{port}");
        let mut environment: Vec<(&str, &str)> =
            self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        environment.push((service.listen_variable(), &listen));
        match &self.programs {
            Some(programs) => {
                ServiceProcess::start_program(&programs.join(service.program()), &environment, &[])
            }
            None => ServiceProcess::start(service.program(), &environment, &[]),
        }
    }
}

impl Member {
    /// Where it listens, as Prometheus writes it.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Which service it is.
    pub fn service(&self) -> Service {
        self.service
    }

    /// The output of this process and of those before it.
    pub fn output(&self) -> Result<String> {
        Ok(self.said_before.clone() + &self.process.output()?)
    }

    /// Whether its process runs.
    pub fn runs(&self) -> bool {
        // A process that has ended has no memory, even before it is waited for.
        self.process.memory_kb("VmRSS").is_ok()
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Starts it again after a kill; does not wait until it is ready.
    pub fn start_again(&mut self) -> Result<()> {
        self.said_before = self.output()?;
        self.process = self.fleet.launch(self.service, self.port)?;
        Ok(())
    }

    /// Waits until it is ready.
    pub async fn wait_until_ready(&mut self) -> Result<()> {
        self.process.wait_until_ready(&base_url(self.port)).await
    }

    /// SIGTERM, and waits for its end.
    pub async fn terminate(&mut self) -> Result<bool> {
        Ok(self.process.terminate(Duration::from_secs(15)).await?.success())
    }

    /// The sum of a metric's series whose labels contain this text.
    pub async fn metric(&self, name: &str, label: &str) -> Result<u64> {
        let text = self.client.get("/metrics").await?.text;
        let series = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
        Ok(series.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum())
    }
}

fn base_url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}
