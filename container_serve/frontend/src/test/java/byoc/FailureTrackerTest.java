package byoc;

import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;

final class FailureTrackerTest {
    @Test
    void aTimeoutWithoutAnyGoodAnswerIsAFailureUntilOneIsGood() {
        long now = System.nanoTime();
        FailureTracker.count(504, now - 5_000_000_000L);
        assertTrue(FailureTracker.failing());
        FailureTracker.count(400, now); // says nothing about the model
        assertTrue(FailureTracker.failing());
        FailureTracker.count(200, now);
        assertFalse(FailureTracker.failing());
        FailureTracker.count(500, now); // one alone does not last
        assertFalse(FailureTracker.failing());
        FailureTracker.count(504, now); // others were answered meanwhile
        assertFalse(FailureTracker.failing());
    }
}
