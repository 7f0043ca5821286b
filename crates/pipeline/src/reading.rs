//! One page: from its upright image to text and regions, band by band.

use crate::{
    Error, Event, FinishReason, Mode, Ocr, Page, ReadOptions, Result, Split, Stats,
    band::{BandAnswer, BandPrompt, BandReading, Prepared},
    join::join,
    ocr::milliseconds,
    page::TokenCounts,
    until::Until,
};
use agx_ocr_language::Answer;
use agx_ocr_text::{Task, prompt_ids};
use agx_ocr_vision::{
    bands::{self, Band},
    views::{self, ViewMode},
};
use image::RgbImage;
use std::{ops::ControlFlow, time::Instant};

type OnEvent<'a> = dyn FnMut(Event<'_>) -> ControlFlow<()> + 'a;

/// What is asked of the model.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub image: &'a RgbImage,
    pub task: &'a Task,
    pub options: &'a ReadOptions,
}

/// A page that is being read.
pub(crate) struct PageReading {
    pub until: Until,
    mode: Mode,
    view: ViewMode,
    bands: Vec<Band>,
    /// Of all bands.
    views: usize,
    readings: Vec<BandReading>,
    counts: TokenCounts,
    stats: Stats,
    /// What was read before, where the page is read once more.
    first: Option<Page>,
}

/// A band of a page whose answer is awaited.
pub(crate) struct Awaited<'a> {
    pub prompt: BandPrompt,
    pub answer: BandAnswer<'a>,
}

impl Ocr {
    /// Reads a page, and once more in another mode where that is asked for and of use.
    pub(crate) fn read_upright(
        &self,
        asked: Asked<'_>,
        until: Until,
        on_event: &mut OnEvent<'_>,
    ) -> Result<Page> {
        let mut reading = self.begin(asked, until, on_event)?;
        loop {
            if let Some(ended) = self.read_bands(&mut reading, asked, on_event).transpose() {
                return ended.or_else(|error| reading.failed(error));
            }
        }
    }

    /// Reads all bands; `None` where the page is to be read once more.
    fn read_bands(
        &self,
        reading: &mut PageReading,
        asked: Asked<'_>,
        on_event: &mut OnEvent<'_>,
    ) -> Result<Option<Page>> {
        let generate = self.generate_options(asked.options)?;
        while let Some(mut awaited) = self.next_band(reading, asked, on_event)? {
            let Awaited { prompt, answer } = &mut awaited;
            let (started, mut first) = (Instant::now(), None);
            let on_token = &mut |id, _: f32| {
                first.get_or_insert_with(|| milliseconds(started));
                reading.token(answer, id, on_event)
            };
            let prompt = prompt.get();
            let answered = self
                .decoder
                .generate(&prompt, &generate, &reading.until, on_token);
            let total = milliseconds(started);
            let first = first.unwrap_or(total);
            answer.joined(first);
            answer.stepped(total - first);
            self.end_band(reading, &awaited, answered, asked)?;
        }
        self.end(reading, asked, on_event)
    }

    /// Begins to read a page.
    pub(crate) fn begin(
        &self,
        asked: Asked<'_>,
        until: Until,
        on_event: &mut OnEvent<'_>,
    ) -> Result<PageReading> {
        let started = Instant::now();
        // What cannot work is found before the work.
        prompt_ids(&self.tokenizer, &asked.task.prompt()?, 0)?;
        asked.options.sampling.check()?;
        let mut reading = self.plan(asked, asked.options.mode, until)?;
        reading.stats.preprocess_ms = milliseconds(started);
        reading.tell_size(asked, on_event);
        Ok(reading)
    }

    /// The prompt of the next band; `None` where there is none, or the time is over.
    pub(crate) fn next_band(
        &self,
        reading: &mut PageReading,
        asked: Asked<'_>,
        on_event: &mut OnEvent<'_>,
    ) -> Result<Option<Awaited<'_>>> {
        let PageReading {
            until,
            view,
            bands,
            views,
            readings,
            counts,
            stats,
            ..
        } = reading;
        let Some(band) = bands.get(readings.len()) else {
            return Ok(None);
        };
        if until.stopped().is_some() {
            return Ok(None);
        }
        // Not before its turn: the time may be over by then.
        let started = Instant::now();
        let prepared = Prepared::new(asked.image, band, view)?;
        stats.preprocess_ms += milliseconds(started);
        let count = prepared.views.count();
        let on_view = &mut |done| {
            let done = counts.views + done;
            let event = Event::View {
                done,
                total: *views,
            };
            tell(event, until, on_event);
        };
        let (prompt, answer) = match self.ask(prepared, asked.task, until, stats, on_view) {
            Ok(asked) => asked,
            Err(error) => {
                let reason = until.made(&error).ok_or(error)?;
                readings.push(BandReading::unread(reason));
                return Ok(None);
            }
        };
        counts.views += count;
        let tokens = prompt.get().ids.len();
        tell(Event::Prefill { tokens }, until, on_event);
        Ok(Some(Awaited { prompt, answer }))
    }

    /// Takes in a band's answer.
    pub(crate) fn end_band(
        &self,
        reading: &mut PageReading,
        awaited: &Awaited<'_>,
        answered: Result<Answer, agx_ocr_language::Error>,
        asked: Asked<'_>,
    ) -> Result<()> {
        let Awaited { prompt, answer } = awaited;
        let (until, stats) = (&reading.until, &mut reading.stats);
        let asked = (asked.task, asked.options);
        let read = match self.understand(prompt, answer, answered, asked, until, stats) {
            Ok(read) => read,
            Err(error) => BandReading::unread(until.made(&error).ok_or(error)?),
        };
        reading.counts.prompt += read.prompt_tokens;
        reading.counts.generated += read.log_probabilities.len();
        reading.readings.push(read);
        Ok(())
    }

    /// The page that was read; `None` where it is to be read once more, which has begun then.
    pub(crate) fn end(
        &self,
        reading: &mut PageReading,
        asked: Asked<'_>,
        on_event: &mut OnEvent<'_>,
    ) -> Result<Option<Page>> {
        let page = self.page(reading, asked)?;
        if reading.first.is_some() {
            return Ok(Some(reading.better(Some(page))));
        }
        let repeats = page.finish_reason == FinishReason::Repetition;
        let Some(mode) = asked.options.retry_mode.filter(|_| repeats) else {
            return Ok(Some(page));
        };
        let until = std::mem::replace(&mut reading.until, Until::new(None));
        *reading = self.plan(asked, mode, until)?;
        reading.first = Some(page);
        reading.tell_size(asked, on_event);
        Ok(None)
    }

    /// The page that its bands make up.
    fn page(&self, reading: &mut PageReading, asked: Asked<'_>) -> Result<Page> {
        let readings = std::mem::take(&mut reading.readings);
        let stopped = reading.until.stopped().filter(|_| {
            // An answer that ended as the time did is whole.
            let whole = |band: &BandReading| band.finish_reason == FinishReason::Stop;
            readings.len() < reading.bands.len() || !readings.iter().all(whole)
        });
        if stopped == Some(FinishReason::Timeout) && reading.counts.generated == 0 {
            return Err(Error::Timeout(asked.options.time.unwrap_or_default()));
        }
        let mut page = join(readings, stopped);
        (page.width, page.height) = asked.image.dimensions();
        page.model = self.name().to_owned();
        page.task = asked.task.name();
        page.tokens = reading.counts;
        page.stats = reading.stats.with_rate();
        Ok(page)
    }

    /// How the page will be read: in which views, and in which bands.
    fn plan(&self, asked: Asked<'_>, mode: Mode, until: Until) -> Result<PageReading> {
        let view = mode.view().unwrap_or(self.defaults.view);
        view.check()?;
        let split = match (asked.options.split, mode.view()) {
            (Split::Auto, None) => self.defaults.split,
            (Split::Auto, Some(_)) => Split::None,
            (split, _) => split,
        };
        let bands = match split {
            Split::Bands => bands::split(asked.image, view.global_size()),
            _ => vec![Band::whole(asked.image)],
        };
        let count = |band: &Band| views::count(band.width(), band.height(), &view);
        Ok(PageReading {
            until,
            mode,
            view,
            views: bands.iter().map(count).sum(),
            bands,
            readings: Vec::new(),
            counts: TokenCounts::default(),
            stats: Stats::default(),
            first: None,
        })
    }
}

/// Tells the caller, who may want no more.
fn tell(event: Event<'_>, until: &Until, on_event: &mut OnEvent<'_>) {
    if on_event(event).is_break() {
        until.cancel();
    }
}

impl PageReading {
    fn tell_size(&self, asked: Asked<'_>, on_event: &mut OnEvent<'_>) {
        let (width, height) = asked.image.dimensions();
        let bands = self.bands.len();
        let event = Event::Image {
            width,
            height,
            bands,
        };
        tell(event, &self.until, on_event);
    }

    /// Takes a token of the band's answer.
    pub(crate) fn token(
        &self,
        answer: &mut BandAnswer<'_>,
        id: u32,
        on_event: &mut OnEvent<'_>,
    ) -> ControlFlow<()> {
        // There is something to keep.
        self.until.keep(true);
        let text = answer.push(id);
        let count = self.counts.generated + answer.len();
        tell(Event::Token { text: &text, count }, &self.until, on_event);
        match self.until.stopped() {
            Some(_) => ControlFlow::Break(()),
            None => ControlFlow::Continue(()),
        }
    }

    /// Takes back that a band was begun.
    pub(crate) fn forget(&mut self, awaited: &Awaited<'_>) {
        self.counts.views -= awaited.prompt.band.views.count();
    }

    /// What there is of the page although `error` happened: an earlier reading.
    pub(crate) fn failed(&mut self, error: Error) -> Result<Page> {
        match self.first {
            Some(_) => Ok(self.better(None)),
            None => Err(error),
        }
    }

    /// The better one of the earlier reading and this.
    fn better(&mut self, second: Option<Page>) -> Page {
        let how = format!("in mode {}", self.mode);
        match (self.first.take(), second) {
            (Some(first), second) => first.or_rather(second, &how),
            (None, second) => second.unwrap_or_default(),
        }
    }
}
