//! The pages that are being read together, and those that wait for room.

use super::{BatchEvent, Tell};
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

/// Positions of prompts that are run together: with more the weights are no less of the work.
const TOGETHER: usize = 4096;

/// The pages under way.
pub(super) struct Pages<'a> {
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
pub(super) enum Stop {
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
    /// No pages yet, and room for `size` at a time.
    pub(super) fn new(
        ocr: &'a Ocr,
        task: &'a Task,
        options: &'a ReadOptions,
        size: usize,
    ) -> Result<Self> {
        let end = options.time;
        let generate = ocr.generate_options(options)?;
        Ok(Self {
            ocr,
            task,
            options,
            end: end.and_then(|time| Instant::now().checked_add(time)),
            waiting: VecDeque::new(),
            seats: Vec::new(),
            batch: Batch::new(&ocr.decoder, size, &generate)?,
            size,
            most: size,
        })
    }

    /// Reads all pages.
    pub(super) fn read(
        &mut self,
        pages: &mut dyn Iterator<Item = (usize, Result<DecodedImage>)>,
        tell: &mut Tell<'_>,
    ) -> Result<(), Stop> {
        loop {
            let came = self.take_next(pages, tell)?;
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

    /// Takes in pages that wait, or the next ones, as many as there is room for and as are worth a run of
    /// the decoder for all their prompts; `false` where nothing came.
    fn take_next(
        &mut self,
        pages: &mut dyn Iterator<Item = (usize, Result<DecodedImage>)>,
        tell: &mut Tell<'_>,
    ) -> Result<bool, Stop> {
        let (mut came, mut asking, mut positions) = (false, Vec::new(), 0);
        while self.seats.len() + asking.len() < self.size && positions < TOGETHER {
            let next = match self.waiting.pop_front() {
                Some(page) => Some((page.index, Ok(page))),
                None => {
                    (pages.next()).map(|(index, image)| (index, self.begin(index, image, tell)))
                }
            };
            let Some((index, page)) = next else { break };
            came = true;
            let page = match page {
                Ok(page) => page,
                Err(error) => {
                    told(index, Err(error), tell)?;
                    continue;
                }
            };
            let put_off = self.waiting.len();
            if let Some((page, awaited)) = self.ask(page, asking.len(), tell)? {
                positions += awaited.prompt.get().ids.len();
                asking.push((page, awaited));
            } else if self.waiting.len() > put_off {
                // There is no memory for more, or it has another band.
                break;
            }
        }
        self.join(asking, tell)?;
        Ok(came)
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

    /// A page's next band, if it can be asked for now, beside so many others that are to join; a page
    /// without one has ended.
    fn ask(
        &mut self,
        mut page: Waiting,
        others: usize,
        tell: &mut Tell<'_>,
    ) -> Result<Option<(Waiting, Awaited<'a>)>, Stop> {
        let (asked, under_way) = (self.asked(&page.image), self.seats.len() + others);
        let next = {
            let on_event = &mut of_page(page.index, tell);
            self.ocr.next_band(&mut page.reading, asked, on_event)
        };
        match next {
            Ok(Some(awaited)) => Ok(Some((page, awaited))),
            Ok(None) => {
                let ended = {
                    let on_event = &mut of_page(page.index, tell);
                    self.ocr.end(&mut page.reading, asked, on_event)
                };
                self.ended(page, ended, tell)?;
                Ok(None)
            }
            // It may do when others have ended.
            Err(Error::Backend(error)) if error.is_out_of_memory() && under_way > 0 => {
                self.put_off(page, under_way);
                Ok(None)
            }
            Err(error) => {
                self.ended(page, Err(error), tell)?;
                Ok(None)
            }
        }
    }

    /// Has bands join the batch, whose prompts are run together. Where that fails each is tried alone:
    /// the error is one's, or there is memory for fewer.
    fn join(
        &mut self,
        mut asking: Vec<(Waiting, Awaited<'a>)>,
        tell: &mut Tell<'_>,
    ) -> Result<(), Stop> {
        if asking.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        match self.tickets(&asking) {
            Ok(tickets) => {
                let share = milliseconds(started) / asking.len() as f64;
                for ((page, mut awaited), ticket) in asking.into_iter().zip(tickets) {
                    awaited.answer.joined(share);
                    self.seats.push(Seat {
                        page,
                        awaited,
                        ticket,
                    });
                }
                Ok(())
            }
            Err(_) if asking.len() > 1 => {
                let mut each = asking.into_iter();
                each.try_for_each(|one| self.join(vec![one], tell))
            }
            Err(error) => {
                let Some((mut page, awaited)) = asking.pop() else {
                    return Err(error.into());
                };
                if error.is_out_of_memory() && !self.seats.is_empty() {
                    page.reading.forget(&awaited);
                    self.put_off(page, self.seats.len());
                    return Ok(());
                }
                self.answered(page, &awaited, Err(error), tell)
            }
        }
    }

    fn tickets(&mut self, asking: &[(Waiting, Awaited<'_>)]) -> LanguageResult<Vec<Ticket>> {
        #[cfg(test)]
        super::tests::check(&super::tests::JOINING, self.seats.len() + asking.len())?;
        let prompts: Vec<_> = asking.iter().map(|(_, it)| it.prompt.get()).collect();
        let prompts: Vec<_> = prompts.iter().collect();
        match asking.first() {
            // The time is for all of them.
            Some((page, _)) => self.batch.join_all(&prompts, &page.reading.until),
            None => Ok(Vec::new()),
        }
    }

    /// Has a page wait until another of those under way has ended: there is no memory for more.
    fn put_off(&mut self, page: Waiting, under_way: usize) {
        self.batch.release();
        self.size = under_way;
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
        let stepped = match super::tests::check(&super::tests::STEPPING, self.batch.len()) {
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
        self.put_off(page, self.seats.len());
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
