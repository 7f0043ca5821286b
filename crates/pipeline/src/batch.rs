//! Pages that are read together.

use crate::{
    Error, Event, Ocr, Page, ReadOptions, Result,
    input::DecodedImage,
    ocr::milliseconds,
    reading::{Asked, Awaited, PageReading},
    until::Until,
};
use agx_ocr_language::{Answer, Batch, Ended, Result as LanguageResult, Ticket};
use agx_ocr_text::Task;
use std::{collections::VecDeque, ops::ControlFlow, time::Instant};

/// What happens while pages are read together. Pages are counted from 0, as they were given.
#[derive(Debug)]
#[non_exhaustive]
#[expect(clippy::large_enum_variant, reason = "they are passed on, not kept")]
pub enum BatchEvent<'a> {
    /// Something about a page. Where the caller wants no more, its reading ends, and what was read
    /// by then is the page.
    Page {
        /// Which page.
        index: usize,
        /// What happens.
        event: Event<'a>,
    },
    /// A page was read, or could not be. Where the caller wants no more, all reading ends.
    End {
        /// Which page.
        index: usize,
        /// What was read, and where.
        read: Result<(Page, DecodedImage)>,
    },
}

type Tell<'a> = dyn FnMut(BatchEvent<'_>) -> ControlFlow<()> + 'a;

impl Ocr {
    /// Reads pages together, `size` of them at a time: the decoder's weights are read once for all,
    /// and a page that ends makes room for the next one, which is asked for only then. Pages come in
    /// the order in which they end. One that fails does not take the others with it. The time of
    /// [`ReadOptions::time`] is for all of them, from the call on.
    ///
    /// Where a GPU's memory is full, fewer pages are read at a time, and a page that has to wait begins
    /// its band anew: its tokens are told of once more. With random sampling answers take turns there.
    /// Of the times in [`Page::stats`] each counts what passed meanwhile, work on other pages among it.
    ///
    /// `pages` and `tell` are called on a thread of the model's, and must not read with it.
    ///
    /// # Errors
    /// When options are out of range, or a device fails: of the pages under way nothing is told then.
    ///
    /// ```no_run
    /// # use agx_ocr_pipeline::{BatchEvent, Ocr, Options, ReadOptions, Task};
    /// # use std::ops::ControlFlow;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let ocr = Ocr::load("models/deepseek-ocr", Options::default())?;
    /// let document = ocr.open(std::fs::read("contract.pdf")?)?;
    /// let options = ReadOptions::default();
    /// let draw = |number| Ok(document.page(number, &options.rendering)?);
    /// let pages = (1..=document.pages()).map(draw);
    /// ocr.read_batch(pages, &Task::Markdown, &options, 8, |event| {
    ///     if let BatchEvent::End { index, read: Ok((page, _)) } = event {
    ///         println!("page {}: {}", index + 1, page.text);
    ///     }
    ///     ControlFlow::Continue(())
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn read_batch(
        &self,
        pages: impl IntoIterator<Item = Result<DecodedImage>, IntoIter: Send>,
        task: &Task,
        options: &ReadOptions,
        size: usize,
        mut tell: impl FnMut(BatchEvent<'_>) -> ControlFlow<()> + Send,
    ) -> Result<()> {
        let (mut pages, size) = (pages.into_iter().enumerate(), size.max(1));
        let end = options.time;
        let end = end.and_then(|time| Instant::now().checked_add(time));
        let read = || {
            let generate = self.generate_options(options)?;
            let mut all = Pages {
                ocr: self,
                task,
                options,
                end,
                waiting: VecDeque::new(),
                seats: Vec::new(),
                batch: Batch::new(&self.decoder, size, &generate)?,
                size,
                most: size,
            };
            match all.read(&mut pages, &mut tell) {
                Ok(()) | Err(Stop::Left) => Ok(()),
                Err(Stop::Failed(error)) => Err(error),
            }
        };
        self.compute(read)
    }
}

/// The pages under way.
struct Pages<'a> {
    ocr: &'a Ocr,
    task: &'a Task,
    options: &'a ReadOptions,
    end: Option<Instant>,
    /// Pages whose next band waits for room.
    waiting: VecDeque<Waiting>,
    /// Pages one of whose bands is being read.
    seats: Vec<Seat<'a>>,
    batch: Batch<'a>,
    /// How many at a time: as many as were asked for, and fewer where memory is full.
    size: usize,
    most: usize,
}

/// A page between its bands.
struct Waiting {
    index: usize,
    image: DecodedImage,
    reading: PageReading,
}

/// A page whose band is in the batch.
struct Seat<'a> {
    page: Waiting,
    awaited: Awaited<'a>,
    ticket: Ticket,
}

/// Why no more is read.
enum Stop {
    /// The caller wants no more.
    Left,
    Failed(Error),
}

impl From<agx_ocr_language::Error> for Stop {
    fn from(error: agx_ocr_language::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl<'a> Pages<'a> {
    fn read(
        &mut self,
        pages: &mut dyn Iterator<Item = (usize, Result<DecodedImage>)>,
        tell: &mut Tell<'_>,
    ) -> Result<(), Stop> {
        loop {
            let came = self.seats.len() < self.size && self.take_next(pages, tell)?;
            if self.seats.is_empty() {
                if came {
                    continue;
                }
                return Ok(());
            }
            // Those that are there go on between two that come.
            for (ticket, answer) in self.step(tell)? {
                let seat = self.seats.iter().position(|seat| seat.ticket == ticket);
                if let Some(seat) = seat {
                    let Seat { page, awaited, .. } = self.seats.swap_remove(seat);
                    self.answered(page, &awaited, answer, tell)?;
                }
            }
        }
    }

    /// Takes in a page that waits, or the next one; `false` where there is none.
    fn take_next(
        &mut self,
        pages: &mut dyn Iterator<Item = (usize, Result<DecodedImage>)>,
        tell: &mut Tell<'_>,
    ) -> Result<bool, Stop> {
        if let Some(page) = self.waiting.pop_front() {
            self.seat(page, tell)?;
        } else if let Some((index, image)) = pages.next() {
            match self.begin(index, image, tell) {
                Ok(page) => self.seat(page, tell)?,
                Err(error) => told(index, Err(error), tell)?,
            }
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    fn begin(
        &self,
        index: usize,
        image: Result<DecodedImage>,
        tell: &mut Tell<'_>,
    ) -> Result<Waiting> {
        let image = image?;
        let until = Until::at(self.end);
        let asked = self.asked(&image);
        let reading = self.ocr.begin(asked, until, &mut of_page(index, tell))?;
        Ok(Waiting {
            index,
            image,
            reading,
        })
    }

    /// Has a page's next band join the batch; a page without one has ended.
    fn seat(&mut self, mut page: Waiting, tell: &mut Tell<'_>) -> Result<(), Stop> {
        let asked = self.asked(&page.image);
        let next = {
            let on_event = &mut of_page(page.index, tell);
            self.ocr.next_band(&mut page.reading, asked, on_event)
        };
        let mut awaited = match next {
            Ok(Some(awaited)) => awaited,
            Ok(None) => {
                let ended = {
                    let on_event = &mut of_page(page.index, tell);
                    self.ocr.end(&mut page.reading, asked, on_event)
                };
                return self.ended(page, ended, tell);
            }
            Err(error) if self.may_wait(&error) => {
                self.put_off(page);
                return Ok(());
            }
            Err(error) => return self.ended(page, Err(error), tell),
        };
        let started = Instant::now();
        match self.join(&awaited, &page.reading.until) {
            Ok(ticket) => {
                awaited.answer.joined(milliseconds(started));
                self.seats.push(Seat {
                    page,
                    awaited,
                    ticket,
                });
            }
            Err(error) if error.is_out_of_memory() && !self.seats.is_empty() => {
                page.reading.forget(&awaited);
                self.put_off(page);
            }
            Err(error) => return self.answered(page, &awaited, Err(error), tell),
        }
        Ok(())
    }

    fn join(&mut self, awaited: &Awaited<'_>, until: &Until) -> LanguageResult<Ticket> {
        #[cfg(test)]
        tests::check(&tests::JOINING, self.seats.len() + 1)?;
        self.batch.join(&awaited.prompt.get(), until)
    }

    /// Whether a page that failed so may do when others have ended.
    fn may_wait(&self, error: &Error) -> bool {
        let full = matches!(error, Error::Backend(error) if error.is_out_of_memory());
        full && !self.seats.is_empty()
    }

    /// Has a page wait until another has ended: there is no memory for so many.
    fn put_off(&mut self, page: Waiting) {
        self.batch.release();
        self.size = self.seats.len();
        self.waiting.push_front(page);
    }

    /// A token more for each page.
    fn step(&mut self, tell: &mut Tell<'_>) -> Result<Vec<Ended>, Stop> {
        let (started, together) = (Instant::now(), self.batch.len().max(1));
        let seats = &mut self.seats;
        let on_token = &mut |ticket: Ticket, id, _: f32| {
            let seat = seats.iter_mut().find(|seat| seat.ticket == ticket);
            let Some(Seat { page, awaited, .. }) = seat else {
                return ControlFlow::Break(());
            };
            let on_event = &mut of_page(page.index, tell);
            page.reading.token(&mut awaited.answer, id, on_event)
        };
        #[cfg(not(test))]
        let stepped = self.batch.step(on_token);
        #[cfg(test)]
        let stepped = match tests::check(&tests::STEPPING, self.batch.len()) {
            Ok(()) => self.batch.step(on_token),
            Err(error) => Err(error),
        };
        match stepped {
            Err(error) if error.is_out_of_memory() => {
                self.give_one_up(error, tell)?;
                Ok(Vec::new())
            }
            ended => {
                let share = milliseconds(started) / together as f64;
                let seats = self.seats.iter_mut();
                seats.for_each(|seat| seat.awaited.answer.stepped(share));
                Ok(ended?)
            }
        }
    }

    /// Has the page with the shortest answer wait until others have ended, and begin its band anew;
    /// one that is alone cannot be read.
    fn give_one_up(
        &mut self,
        error: agx_ocr_language::Error,
        tell: &mut Tell<'_>,
    ) -> Result<(), Stop> {
        // Those that have left have ended, and are still to be fetched.
        let going_on = |i: &usize| self.batch.has(self.seats[*i].ticket);
        let tokens = |i: &usize| self.seats[*i].awaited.answer.len();
        let least = (0..self.seats.len()).filter(going_on).min_by_key(tokens);
        let Some(least) = least else {
            return Err(error.into());
        };
        let Seat {
            mut page,
            awaited,
            ticket,
        } = self.seats.swap_remove(least);
        self.batch.leave(ticket);
        if self.seats.is_empty() {
            return self.answered(page, &awaited, Err(error), tell);
        }
        page.reading.forget(&awaited);
        self.put_off(page);
        Ok(())
    }

    /// Takes a band's answer; the page's next band waits for room.
    fn answered(
        &mut self,
        mut page: Waiting,
        awaited: &Awaited<'_>,
        answer: LanguageResult<Answer>,
        tell: &mut Tell<'_>,
    ) -> Result<(), Stop> {
        let (ocr, asked) = (self.ocr, self.asked(&page.image));
        match ocr.end_band(&mut page.reading, awaited, answer, asked) {
            Ok(()) => {
                self.waiting.push_front(page);
                Ok(())
            }
            Err(error) => self.ended(page, Err(error), tell),
        }
    }

    /// Tells of a page that was read, or failed; one that is to be read once more waits for room.
    fn ended(
        &mut self,
        mut page: Waiting,
        ended: Result<Option<Page>>,
        tell: &mut Tell<'_>,
    ) -> Result<(), Stop> {
        let Some(read) = ended.transpose() else {
            self.waiting.push_front(page);
            return Ok(());
        };
        if read.is_ok() {
            self.size = self.most.min(self.size + 1);
        }
        let read = read.or_else(|error| page.reading.failed(error));
        let Waiting { index, image, .. } = page;
        told(index, read.map(|page| (page.of(&image), image)), tell)
    }

    fn asked<'b>(&self, image: &'b DecodedImage) -> Asked<'b>
    where
        'a: 'b,
    {
        Asked {
            image: &image.image,
            task: self.task,
            options: self.options,
        }
    }
}

/// Tells of a page what happens.
fn of_page<'a>(
    index: usize,
    tell: &'a mut Tell<'_>,
) -> impl FnMut(Event<'_>) -> ControlFlow<()> + 'a {
    move |event| tell(BatchEvent::Page { index, event })
}

/// Tells of a page's end.
fn told(index: usize, read: Result<(Page, DecodedImage)>, tell: &mut Tell<'_>) -> Result<(), Stop> {
    match tell(BatchEvent::End { index, read }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Stop::Left),
    }
}

#[cfg(test)]
mod tests;
