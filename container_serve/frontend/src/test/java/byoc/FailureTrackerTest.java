package byoc;

import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;

final class FailureTrackerTest {
    @Test
    void aTimeoutWithoutAnyGoodAnswerIsAFailureUntilOneIsGood() {
        FailureTracker.count(504);
        assertTrue(FailureTracker.failing());
        FailureTracker.count(400); // says nothing about the model
        assertTrue(FailureTracker.failing());
        FailureTracker.count(200);
        assertFalse(FailureTracker.failing());
        FailureTracker.count(500); // one alone does not last
        assertFalse(FailureTracker.failing());
    }
}
